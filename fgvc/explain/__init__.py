"""Looking into trained models: how alike their layers are."""
