"""MONAI Bundles of others, read as data: nothing in their configs is imported, built or run."""
