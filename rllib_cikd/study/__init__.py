"""Studies: many variants, tasks and seeds, and the tables and figures that compare them."""
