"""Open data sets: which there are, how they are fetched, and how their archives are unpacked."""
