# YOLO-World v2, size XL: size X, one and a half times the base width.
_base_ = "yolo_world_v2_x_vlpan_bn_2e-3_100e_4x8gpus_obj365v1_goldg_train_lvis_minival.py"

deepen_factor = 1.0
widen_factor = 1.5

model = dict(
    backbone=dict(
        image_model=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    ),
    neck=dict(deepen_factor=deepen_factor, widen_factor=widen_factor),
    bbox_head=dict(head_module=dict(widen_factor=widen_factor)),
)
