"""Label maps in DICOM: Segmentation objects and RT Structure Sets, read and written."""
