"""Say which commands the demo has: `python -m demo`."""

from human_anomaly import demo

if __name__ == "__main__":
    print(demo.__doc__, end="")
