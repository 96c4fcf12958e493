# YOLO-World v2, size S: mmyolo's YOLOv8-s with a text-guided neck and a contrastive head.
_base_ = "mmyolo::yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco.py"

last_stage_out_channels = _base_.last_stage_out_channels
text_channels = 512

model = dict(
    type="YOLOWorldDetector",
    backbone=dict(
        _delete_=True,
        type="YOLOWorldBackbone",
        image_model=_base_.model.backbone,
    ),
    neck=dict(
        type="YOLOWorldPAFPN",
        guide_channels=text_channels,
        embed_channels=[128, 256, last_stage_out_channels // 2],
        num_heads=[4, 8, last_stage_out_channels // 2 // 32],
    ),
    bbox_head=dict(
        head_module=dict(type="YOLOWorldHeadModule", embed_channels=text_channels),
    ),
)
