package clipstep.runtime

import clipstep.runtime.Frame.Companion.CHANNELS
import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.math.max

/**
 * Resizes the largest centred square of a frame to (size, size, 3), in the same way as training, evaluation and Python's streams.
 *
 * The interpolation is bilinear with half-pixel centres; when it shrinks, the triangle filter is widened against aliasing. Rows come first,
 * then columns, in float32, and the result is rounded half up. Buffers are allocated when the size of frames changes.
 */
internal class Resizer(private val size: Int) {
    private var height = 0
    private var width = 0
    private var box = Box(0, 0, size)
    private var taps = Taps(size, size)
    private var rows = FloatArray(0)
    private val out = ByteArray(size * size * CHANNELS)

    /** Writes the square to [target], from its position on. */
    fun resize(frame: Frame, target: ByteBuffer) {
        if (frame.height != height || frame.width != width) {
            height = frame.height
            width = frame.width
            box = Box.center(height, width)
        }
        val box = box
        if (box.side == size) return copy(frame, box, target)
        if (taps.old != box.side) allocate(box.side)
        for (row in 0 until size) resizeRow(frame, box, row)
        target.put(out)
    }

    private fun allocate(side: Int) {
        taps = Taps(side, size)
        rows = FloatArray(side * CHANNELS)
    }

    private fun copy(frame: Frame, box: Box, target: ByteBuffer) {
        for (row in 0 until size) target.put(frame.rgb, ((box.top + row) * frame.width + box.left) * CHANNELS, size * CHANNELS)
    }

    private fun resizeRow(frame: Frame, box: Box, row: Int) {
        val first = taps.first[row]
        java.util.Arrays.fill(rows, 0f)
        for (tap in 0 until taps.count[row]) {
            val weight = taps.weights[row * taps.width + tap]
            val start = ((box.top + first + tap) * frame.width + box.left) * CHANNELS
            addRow(frame.rgb, start, weight)
        }
        for (column in 0 until size) resizePixel(row, column)
    }

    private fun addRow(rgb: ByteArray, start: Int, weight: Float) {
        val rows = rows // A local variable makes the loop faster.
        for (i in rows.indices) rows[i] += weight * (rgb[start + i].toInt() and 0xff)
    }

    private fun resizePixel(row: Int, column: Int) {
        var red = 0f
        var green = 0f
        var blue = 0f
        var at = taps.first[column] * CHANNELS
        for (tap in 0 until taps.count[column]) {
            val weight = taps.weights[column * taps.width + tap]
            red += weight * rows[at++]
            green += weight * rows[at++]
            blue += weight * rows[at++]
        }
        val to = (row * size + column) * CHANNELS
        out[to] = clip(red)
        out[to + 1] = clip(green)
        out[to + 2] = clip(blue)
    }

    private fun clip(value: Float): Byte = minOf((value + 0.5f).toInt(), 255).toByte()
}

/** The input pixels that each output pixel is computed from: [count] pixels from [first] on, and their [weights], (new, width), which sum to 1. */
private class Taps(val old: Int, new: Int) {
    val first = IntArray(new)
    val count = IntArray(new)
    private val step = old.toDouble() / new
    val width = 2 * max(step, 1.0).toInt() + 3
    val weights = FloatArray(new * width)

    init {
        for (i in 0 until new) fill(i)
    }

    private fun fill(i: Int) {
        val center = (i + 0.5) * step - 0.5
        val shares = (0 until old).map { max(0.0, 1.0 - abs(it - center) / max(step, 1.0)) }
        val sum = shares.sum()
        first[i] = shares.indexOfFirst { it > 0 }
        count[i] = shares.indexOfLast { it > 0 } - first[i] + 1
        for (tap in 0 until count[i]) weights[i * width + tap] = (shares[first[i] + tap] / sum).toFloat()
    }
}
