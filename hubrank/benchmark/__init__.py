"""How good a ranking is, against transfer that was really measured, for hubrank's estimators and for what else there is."""
