"""One colour per student, apart from each other for most colour-blind readers, on white as on near-black."""

import colorsys

# Five to one against each other in lightness-corrected hue; 3:1 or more against both page backgrounds.
STUDENT_COLOURS = ("#3b82d8", "#e0791a", "#15a37f", "#c9489c", "#8b6ad6", "#b08b00", "#d6504a", "#5c9a2f")
GOLDEN_ANGLE = 0.381966  # of a turn: successive hues never come close


def student_colour(student: int) -> str:
    """Colour of a student as #rrggbb; beyond the eighth, hues by the golden angle.

    >>> student_colour(0), student_colour(8) != student_colour(9)
    ('#3b82d8', True)
    """
    if student < len(STUDENT_COLOURS):
        return STUDENT_COLOURS[student]
    red, green, blue = colorsys.hls_to_rgb((student * GOLDEN_ANGLE) % 1, 0.52, 0.55)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def rgb(colour: str) -> tuple[int, int, int]:
    """#rrggbb as three numbers.

    >>> rgb("#3b82d8")
    (59, 130, 216)
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
