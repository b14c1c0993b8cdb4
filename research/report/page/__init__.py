"""The report's page: html.page writes it, explorer.explorer its part for many runs; scripts and styles lie beside them."""
