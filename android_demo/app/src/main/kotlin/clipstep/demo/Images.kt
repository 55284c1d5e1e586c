package clipstep.demo

import android.media.Image
import android.media.MediaFormat
import clipstep.runtime.Plane
import clipstep.runtime.YuvColor
import clipstep.runtime.YuvImage

/** Wraps a YUV_420_888 image without copying it. */
internal fun yuv(image: Image, color: YuvColor): YuvImage {
    val (y, u, v) = image.planes.map { Plane(it.buffer, it.rowStride, it.pixelStride) }
    val crop = image.cropRect
    return YuvImage(crop.height(), crop.width(), y, u, v, color, crop.top, crop.left)
}

/** Returns the conversion of a decoder's output to RGB; a file without colour information counts as standard definition, as in training. */
internal fun colorOf(format: MediaFormat): YuvColor {
    val isFull = format.number(MediaFormat.KEY_COLOR_RANGE) == MediaFormat.COLOR_RANGE_FULL
    return when (format.number(MediaFormat.KEY_COLOR_STANDARD)) {
        MediaFormat.COLOR_STANDARD_BT709 -> if (isFull) YuvColor.BT709_FULL else YuvColor.BT709
        MediaFormat.COLOR_STANDARD_BT2020 -> if (isFull) YuvColor.BT2020_FULL else YuvColor.BT2020
        else -> if (isFull) YuvColor.BT601_FULL else YuvColor.BT601
    }
}

/** Whether the levels of a video are those of high dynamic range, which the network was not trained on. */
internal fun isHdr(format: MediaFormat): Boolean =
    format.number(MediaFormat.KEY_COLOR_TRANSFER) in listOf(MediaFormat.COLOR_TRANSFER_ST2084, MediaFormat.COLOR_TRANSFER_HLG)

/** Returns a number of a format, or 0 if it has none of that name. */
internal fun MediaFormat.number(key: String): Int = if (containsKey(key)) getInteger(key) else 0
