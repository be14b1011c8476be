"""What kinds of file are read, at which rates and in which lengths they are heard: each list and constant once.

Imports nothing.
"""

from __future__ import annotations

MODALITIES = ("image", "sound", "text", "array")  # that a space may have encoders for

# Suffixes by kind, with the dot, in lower case: of what folders are searched for, and of what an output is a file.
# In a sample of several files the first of these is taken.
_VIDEOS = (
    *(".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".3gp", ".3g2", ".ts", ".mpg", ".mpeg"),
    *(".mts", ".m2ts", ".vob", ".flv", ".wmv", ".asf", ".ogv", ".qt"),
)
SUFFIXES: dict[str, tuple[str, ...]] = {
    "sound": (
        *(".ogg", ".wav", ".flac", ".mp3", ".m4a", ".aac", ".opus"),
        *(".oga", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".wma", ".wv", ".amr"),
        *(".m4b", ".mka", ".mp2", ".wave", ".rf64", ".spx", ".ac3", ".ape", ".gsm", ".mpc", ".tak", ".tta", ".voc"),
        *_VIDEOS,
    ),
    "image": (
        *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
        *(".gif", ".jfif", ".avif", ".heic", ".heif", ".jpe", ".apng", ".dib", ".avifs"),
    ),
    "text": (".txt",),
    "video": _VIDEOS,
    "array": (".npy", ".npz", ".csv", ".png", ".tif", ".tiff"),
}

# Picture formats as Pillow names them. No other is opened, whatever a file is called: EPS would run Ghostscript.
PICTURES = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "HEIF")
PICTURES_SAID = "JPEG, PNG, WebP, AVIF, GIF, BMP and TIFF work, and HEIC with pip install pillow-heif"

# Meshes, as trimesh names them by suffix. They are no inputs of a folder of media.
MESHES = (".obj", ".glb", ".ply", ".stl", ".off")
MESHES_SAID = "OBJ, GLB, PLY, STL and OFF work"

# FFmpeg's demuxers that are tried. Playlists (HLS, DASH, concat) are none of them: they open other files and addresses.
DEMUXERS = (
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "flac", "flv", "gsm", "matroska", "mov", "mp3"),
    *("mpeg", "mpegts", "mpc", "mpc8", "ogg", "tak", "tta", "voc", "w64", "wav", "wv"),
)
SOUNDS_SAID = "WAV, FLAC, OGG, MP3, M4A, MP4 and WebM work"

MAX_BYTES = 1 << 30  # 1 GiB, of one sound or picture
MAX_PIXELS = 100_000_000  # 100 Mpx; Pillow itself only warns below 179 Mpx

SAMPLE_RATE = 16_000  # Hz, at which sounds and voices are heard
MIN_RATE = 1_000  # Hz; below, nothing that we model is left
MAX_RATE = 768_000  # Hz; the fastest converters in use
NARROW = 0.75  # of the rate that is heard: what was sampled slower lacks an octave or so, as telephones do
MAX_CHANNELS = 64
MAX_SECONDS = 4 * 3600  # of a sound

# Seconds
HEARD_WINDOW = 5.0  # of a longer recording, its loudest stretch of this length is translated
SHORTEST = 0.02  # between moments of a video that has none otherwise
VOICE_WINDOW = 60.0  # in which speech is looked for
VOICE_SPEECH = 10.0  # of speech that a voice is judged by
