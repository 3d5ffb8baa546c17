"""Reports of models: `measures`, `slices` and `mistakes` count, `charts` draw, `page` writes HTML."""
