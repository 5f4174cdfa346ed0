"""Raw figures become tables, figures and a page. Imports no Ray."""
