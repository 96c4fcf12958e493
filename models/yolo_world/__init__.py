"""YOLO-World v2 on mmyolo's classes; importing a module here registers its classes."""
