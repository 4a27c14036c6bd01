"""One benchmark per file; what each measures is printed as a ratio to a peer or to a limit."""
