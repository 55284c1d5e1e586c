@file:JvmName("Images")

package clipstep.android

import android.graphics.ImageFormat
import android.graphics.Rect
import android.media.Image
import android.media.MediaFormat
import clipstep.runtime.ClipstepException
import clipstep.runtime.Plane
import clipstep.runtime.YuvColor
import clipstep.runtime.YuvImage

/**
 * Wraps an image of a camera or a decoder for [clipstep.runtime.YuvConverter], without copying it. It is valid until the image is closed.
 *
 * @param color the default is that of Android's cameras; for a decoder's images it is [yuvColor] of the decoder's output format.
 * @throws ClipstepException the image is not in YUV_420_888, or its planes are too short for its size.
 */
@JvmOverloads
public fun Image.toYuv(color: YuvColor = YuvColor.BT601_FULL): YuvImage =
    yuvImage(format, cropRect, planes.map { Plane(it.buffer, it.rowStride, it.pixelStride) }, color)

/**
 * Wraps the planes of an image that is not an [Image], such as CameraX's `ImageProxy`, which has the same four properties.
 *
 * @param format of [ImageFormat].
 * @param crop the part of the planes that is the picture, in pixels.
 * @throws ClipstepException it is not in YUV_420_888, or its planes are not three or too short for its size.
 */
@JvmOverloads
public fun yuvImage(format: Int, crop: Rect, planes: List<Plane>, color: YuvColor = YuvColor.BT601_FULL): YuvImage {
    if (format != ImageFormat.YUV_420_888) {
        throw ClipstepException(
            "an image is in another format", got = format, expected = "YUV_420_888, which is ${ImageFormat.YUV_420_888}", fix = "ask the camera or the decoder for that",
        )
    }
    if (planes.size != PLANES) throw ClipstepException("an image has the wrong planes", got = planes.size, expected = "$PLANES: y, u and v")
    val (y, u, v) = planes
    return YuvImage(crop.height(), crop.width(), y, u, v, color, crop.top, crop.left)
}

private const val PLANES = 3

/**
 * The conversion to RGB of a decoder's images in this format: BT.601, BT.709 or BT.2020, of limited or full range. A file without information of its colour
 * counts as BT.601 of limited range, as in training.
 */
public fun MediaFormat.yuvColor(): YuvColor {
    val isFull = number(MediaFormat.KEY_COLOR_RANGE) == MediaFormat.COLOR_RANGE_FULL
    return when (number(MediaFormat.KEY_COLOR_STANDARD)) {
        MediaFormat.COLOR_STANDARD_BT709 -> if (isFull) YuvColor.BT709_FULL else YuvColor.BT709
        MediaFormat.COLOR_STANDARD_BT2020 -> if (isFull) YuvColor.BT2020_FULL else YuvColor.BT2020
        else -> if (isFull) YuvColor.BT601_FULL else YuvColor.BT601
    }
}

/** Whether the levels of a video are those of high dynamic range, which networks are not trained on and [yuvColor] does not convert. */
public val MediaFormat.isHdr: Boolean
    get() = number(MediaFormat.KEY_COLOR_TRANSFER) in listOf(MediaFormat.COLOR_TRANSFER_ST2084, MediaFormat.COLOR_TRANSFER_HLG)

/** Returns a number of a format, or 0, which none of the constants above is. Android's own function with a default is of API 29. */
private fun MediaFormat.number(key: String): Int = if (containsKey(key)) getInteger(key) else 0
