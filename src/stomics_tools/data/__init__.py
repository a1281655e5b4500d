"""AnnData and MuData to arrays, graphs and tensors."""
