#!/bin/sh
# Makes the videos beside it, with ffmpeg 5.1: the same picture under tags that readers disagree on.
# tests/frame_hashes.py holds what OpenCV 4.12 reads in them.
set -e
cd "$(dirname "$0")"
make() {
    name=$1
    filter=$2
    shift 2
    ffmpeg -y -v error -i ../../demo/videos/normal_1.mp4 -frames:v 6 \
        -vf "scale=256:144:out_color_matrix=$filter" "$@" "$name"
}
BT709="-colorspace bt709 -color_primaries bt709 -color_trc bt709"
BT2020="-colorspace bt2020nc -color_primaries bt2020 -color_trc smpte2084"
make bt709.mp4 bt709 $BT709 -c:v libx264 -pix_fmt yuv420p
make bt2020_10bit.mp4 bt2020 $BT2020 -c:v libx265 -x265-params log-level=none -pix_fmt yuv420p10le
make full_range.mp4 bt601:out_range=full -color_range pc -c:v libx264 -pix_fmt yuv420p
make interlaced.mp4 bt601,setfield=tff -c:v libx264 -pix_fmt yuv420p \
    -flags +ildct+ilme -x264opts tff=1
# Cut without re-encoding: 20 of its 27 frames are only there to decode the others.
ffmpeg -y -v error -i ../../demo/videos/normal_1.mp4 -vf scale=256:144 -c:v libx264 \
    -pix_fmt yuv420p uncut.mp4
ffmpeg -y -v error -ss 0.8 -i uncut.mp4 -c copy trimmed.mp4 && rm uncut.mp4
make interlaced.mpg bt709,setfield=tff $BT709 -c:v mpeg2video -flags +ildct+ilme -pix_fmt yuv420p
