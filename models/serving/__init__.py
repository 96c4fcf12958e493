"""The scorer as a service: what serve.py runs."""
