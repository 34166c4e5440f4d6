"""The model-checked saga: runs TLC over spec/, holds recorded payments against it (docs/model-checking.md)."""
