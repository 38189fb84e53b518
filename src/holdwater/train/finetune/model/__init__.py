"""Models of Transformers: load them, put adapters beside their layers, and write them with these merged."""
