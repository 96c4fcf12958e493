"""YOLO-World v2 on mmyolo's classes, for inference."""
