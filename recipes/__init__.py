"""How models that Tamiz gives away are made, from public data to the files that are shipped."""
