"""Fine-tuning the classifiers: what main_finetune.py runs."""
