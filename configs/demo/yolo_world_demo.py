# The drawn world's detector: YOLO-World v2 of nano width on 320 px, without a text tower.
_base_ = (
    "../../third_party/YOLO-World/"
    "yolo_world_v2_s_vlpan_bn_2e-3_100e_4x8gpus_obj365v1_goldg_train_lvis_minival.py"
)

img_scale = (320, 320)  # width, height
deepen_factor = 0.33
widen_factor = 0.25
last_stage_out_channels = 512
channels = [256, 512, last_stage_out_channels]
# Four prompts need no 512 channels; with them, comparing with texts took a third of the training.
text_channels = 64
# Each sample has one prompt set, as at scoring: frames are searched for people, person crops for
# faces and hands. Training repeats the last text of the shorter set, which changes no result.
prompt_sets = dict(frame=["human", " "], crop=["face", "hand", " "])
texts = ["human", "face", "hand", " "]
num_classes = 3  # the longest prompt set

model = dict(
    backbone=dict(
        image_model=dict(
            deepen_factor=deepen_factor,
            widen_factor=widen_factor,
            last_stage_out_channels=last_stage_out_channels,
        )
    ),
    neck=dict(
        guide_channels=text_channels,
        deepen_factor=deepen_factor,
        widen_factor=widen_factor,
        in_channels=channels,
        out_channels=channels,
        embed_channels=[128, 256, last_stage_out_channels // 2],
        num_heads=[4, 8, last_stage_out_channels // 2 // 32],
    ),
    bbox_head=dict(
        head_module=dict(
            embed_channels=text_channels,
            widen_factor=widen_factor,
            in_channels=channels,
            num_classes=num_classes,
        )
    ),
    train_cfg=dict(assigner=dict(num_classes=num_classes)),
)

# Read by demo/detector_training.py.
seed = 0
max_epochs = 3
aspect_epochs = 1  # in this many last epochs, half of the pictures keep their own aspect
batch_size = 8
precision = "fp32"  # demo.train sets bf16 where the hardware computes it fast
base_lr = 1.5e-3
warmup_iters = 100
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.02)
paramwise_cfg = dict(bias_decay_mult=0.0, norm_decay_mult=0.0)
