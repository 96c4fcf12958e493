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
text_channels = 64  # four prompts need no 512; the contrast at full width was a third of the time
# One prompt set per sample: frames look for people, a person's crop for faces and hands, as at
# scoring. A set shorter than the longest is filled up with its last text, which changes nothing.
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

# What demo/detector_training.py reads.
seed = 0
max_epochs = 3
aspect_epochs = 1  # the last ones, which see pictures padded to their own aspect too
batch_size = 8
precision = "fp32"  # or bf16, where it is fast
base_lr = 1.5e-3
warmup_iters = 100
optimizer = dict(type="AdamW", lr=base_lr, weight_decay=0.02)
paramwise_cfg = dict(bias_decay_mult=0.0, norm_decay_mult=0.0)
