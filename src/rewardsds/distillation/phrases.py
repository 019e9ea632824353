"""Texts that losses add to prompts. Nothing heavy is imported here: settings have them as defaults too."""

BRIDGE_SOURCE = (
    ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
)
BRIDGE_TARGET = ", detailed high resolution, high quality, sharp"
"""SDS-Bridge's additions to the prompt (arXiv 2406.09417): what a picture looks like after plain SDS, and what it
should look like.
"""

BAD_QUALITY = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
)
"""NFSD's description of pictures that are off the data (arXiv 2310.17590)."""

NEGATIVE_PROMPT = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear, cropped, "
    "lowres, low quality, artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed, dehydrated, bad "
    "proportions"
)
"""What MVDream is told in the other branch of the guidance: by its own configuration (configs/mvdream-sd21.yaml of
bytedance/MVDream-threestudio) and by DreamGaussian's (configs/text_mv.yaml at 69a3c70), word for word.
"""
