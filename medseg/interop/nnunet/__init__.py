"""nnU-Net's trained models: its plans, its results folders, its weights; read without nnU-Net."""
