package clipstep.demo

import android.graphics.Bitmap
import clipstep.runtime.Frame

/** Converts RGB frames to bitmaps for the screen. Two bitmaps alternate, so that one can be drawn while the other is written. */
internal class Painter {
    private var pixels = IntArray(0)
    private val bitmaps = arrayOfNulls<Bitmap>(2)
    private var turn = 0

    fun paint(frame: Frame, done: (Bitmap) -> Unit) {
        if (pixels.size != frame.height * frame.width) pixels = IntArray(frame.height * frame.width)
        val rgb = frame.rgb
        for (i in pixels.indices) {
            val at = 3 * i
            pixels[i] = (0xff shl 24) or (rgb[at].toInt() and 0xff shl 16) or (rgb[at + 1].toInt() and 0xff shl 8) or (rgb[at + 2].toInt() and 0xff)
        }
        turn = 1 - turn
        val bitmap = bitmaps[turn]?.takeIf { it.width == frame.width && it.height == frame.height }
            ?: Bitmap.createBitmap(frame.width, frame.height, Bitmap.Config.ARGB_8888).also { bitmaps[turn] = it }
        bitmap.setPixels(pixels, 0, frame.width, 0, 0, frame.width, frame.height)
        done(bitmap)
    }
}
