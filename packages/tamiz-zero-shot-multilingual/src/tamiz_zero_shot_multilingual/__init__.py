"""Files of a sentence encoder; there is nothing to import. Tamiz reads them where they lie."""
