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
    fun get(key: String) = if (format.containsKey(key)) format.getInteger(key) else 0
    return when {
        get(MediaFormat.KEY_COLOR_STANDARD) == MediaFormat.COLOR_STANDARD_BT709 -> YuvColor.BT709
        get(MediaFormat.KEY_COLOR_RANGE) == MediaFormat.COLOR_RANGE_FULL -> YuvColor.BT601_FULL
        else -> YuvColor.BT601
    }
}
