package clipstep.runtime

import clipstep.runtime.Frame.Companion.CHANNELS
import java.nio.ByteBuffer

/** A conversion from YUV to RGB: the shares of red and blue in luma, the luma of black, and the factors of luma and chroma. */
public enum class YuvColor(red: Double, blue: Double, black: Int, luma: Double, chroma: Double) {
    /** Android's cameras: BT.601 with 0 to 255, as in JPEG. */
    BT601_FULL(0.299, 0.114, 0, 1.0, 1.0),

    /** Video files of standard definition, and those without colour information: BT.601 with 16 to 235. */
    BT601(0.299, 0.114, 16, 255.0 / 219, 255.0 / 224),

    /** Video files of high definition: BT.709 with 16 to 235. */
    BT709(0.2126, 0.0722, 16, 255.0 / 219, 255.0 / 224),

    /** BT.709 with 0 to 255, such as that of some screen recordings. */
    BT709_FULL(0.2126, 0.0722, 0, 1.0, 1.0),

    /** BT.2020 with 16 to 235, in 8 bits. */
    BT2020(0.2627, 0.0593, 16, 255.0 / 219, 255.0 / 224),

    /** BT.2020 with 0 to 255, in 8 bits. */
    BT2020_FULL(0.2627, 0.0593, 0, 1.0, 1.0);

    internal val luma = fixed(luma)
    internal val offset = fixed(0.5) - black * this.luma
    internal val redOfV = fixed(chroma * 2 * (1 - red))
    internal val blueOfU = fixed(chroma * 2 * (1 - blue))
    internal val greenOfU = fixed(chroma * 2 * (1 - blue) * blue / (1 - red - blue))
    internal val greenOfV = fixed(chroma * 2 * (1 - red) * red / (1 - red - blue))
}

private const val FIXED_BITS = 20

private fun fixed(value: Double): Int = Math.round(value * (1 shl FIXED_BITS)).toInt()

/** One plane of an image, from the start of [buffer]. [rowStride] and [pixelStride] are the bytes from one row, or from one pixel, to the next. */
public class Plane(public val buffer: ByteBuffer, public val rowStride: Int, public val pixelStride: Int)

/**
 * An image in YUV_420_888: each sample of [u] and [v] belongs to two by two pixels of [y]. The picture is [height] by [width]
 * pixels whose upper left one is ([top], [left]) of the planes. Reading leaves the buffers' positions as they were.
 *
 * @throws ClipstepException sizes that are not positive, or a plane that is too short for them.
 */
public class YuvImage @JvmOverloads constructor(
    public val height: Int, public val width: Int, public val y: Plane, public val u: Plane, public val v: Plane, public val color: YuvColor, public val top: Int = 0, public val left: Int = 0,
) {
    init {
        if (height < 1 || width < 1 || top < 0 || left < 0) throw ClipstepException("an image has the wrong size", got = "$height x $width at ($top, $left)")
        check("y", y, top + height, left + width)
        for ((name, plane) in listOf("u" to u, "v" to v)) check(name, plane, (top + height + 1) / 2, (left + width + 1) / 2)
    }

    private fun check(name: String, plane: Plane, rows: Int, columns: Int) {
        val needed = (rows - 1) * plane.rowStride + (columns - 1) * plane.pixelStride + 1
        if (plane.pixelStride < 1 || plane.rowStride < 1 || plane.buffer.limit() < needed) {
            throw ClipstepException(
                "plane $name is too short",
                got = "${plane.buffer.limit()} bytes, row stride ${plane.rowStride}, pixel stride ${plane.pixelStride}",
                expected = "$needed bytes for $height x $width",
            )
        }
    }
}

/** Converts YUV images to upright squares in one pass. Buffers are allocated when the size of images changes. Only one thread may use it. */
public class YuvConverter {
    private var height = 0
    private var width = 0
    private var rotation = 0
    private var box = Box(0, 0, 1)
    private var frame = Frame(1, 1, ByteArray(CHANNELS))
    private var line = ByteArray(0)
    private var red = IntArray(0)
    private var green = IntArray(0)
    private var blue = IntArray(0)

    /**
     * Returns the largest centred square of the image, rotated clockwise by [rotation] degrees, for [Stream.push]. The next call writes into
     * the same frame.
     *
     * @throws ClipstepException a rotation that is not 0, 90, 180 or 270.
     */
    public fun convert(image: YuvImage, rotation: Int): Frame {
        if (rotation !in 0..270 || rotation % 90 != 0) throw ClipstepException("unknown rotation", got = rotation, expected = "0, 90, 180 or 270")
        prepare(image, rotation)
        val box = box
        val frame = frame
        for (row in 0 until box.side) {
            val y = image.top + box.top + row
            val x = image.left + box.left
            if (row == 0 || y % 2 == 0) convertChroma(image, y / 2, x / 2, (x + box.side - 1) / 2 - x / 2 + 1)
            read(image.y, y, x, box.side)
            convertRow(image, frame.rgb, row, box.side, rotation, x % 2)
        }
        return frame
    }

    private fun prepare(image: YuvImage, rotation: Int) {
        if (image.height != height || image.width != width || rotation != this.rotation) {
            box = sourceBox(image.height, image.width, rotation)
            if (frame.height != box.side) frame = Frame(box.side, box.side, ByteArray(box.side * box.side * CHANNELS))
            height = image.height
            width = image.width
            this.rotation = rotation
        }
        allocate(image, box.side)
    }

    private fun allocate(image: YuvImage, side: Int) {
        val bytes = side * maxOf(image.y.pixelStride, image.u.pixelStride, image.v.pixelStride)
        if (line.size < bytes) line = ByteArray(bytes)
        if (red.size < side / 2 + 1) {
            red = IntArray(side / 2 + 1)
            green = IntArray(side / 2 + 1)
            blue = IntArray(side / 2 + 1)
        }
    }

    private fun read(plane: Plane, row: Int, column: Int, count: Int) {
        val buffer = plane.buffer
        val position = buffer.position()
        buffer.position(row * plane.rowStride + column * plane.pixelStride)
        buffer.get(line, 0, (count - 1) * plane.pixelStride + 1)
        buffer.position(position)
    }

    /** Computes what a row of chroma adds to the luma of its pixels, including the rounding. */
    private fun convertChroma(image: YuvImage, row: Int, column: Int, count: Int) {
        val color = image.color
        read(image.u, row, column, count)
        for (i in 0 until count) {
            val u = (line[i * image.u.pixelStride].toInt() and 0xff) - 128
            blue[i] = color.offset + color.blueOfU * u
            green[i] = color.offset - color.greenOfU * u
        }
        read(image.v, row, column, count)
        for (i in 0 until count) {
            val v = (line[i * image.v.pixelStride].toInt() and 0xff) - 128
            red[i] = color.offset + color.redOfV * v
            green[i] -= color.greenOfV * v
        }
    }

    private fun convertRow(image: YuvImage, rgb: ByteArray, row: Int, side: Int, rotation: Int, odd: Int) {
        val last = side - 1
        var to = CHANNELS * when (rotation) { 0 -> row * side; 90 -> last - row; 180 -> (last - row) * side + last; else -> last * side + row }
        val step = CHANNELS * when (rotation) { 0 -> 1; 90 -> side; 180 -> -1; else -> -side }
        val luma = image.color.luma
        val stride = image.y.pixelStride
        val line = line // Local variables make the loop faster.
        val red = red
        val green = green
        val blue = blue
        for (column in 0 until side) {
            val y = luma * (line[column * stride].toInt() and 0xff)
            val chroma = (column + odd) shr 1
            rgb[to] = clip((y + red[chroma]) shr FIXED_BITS)
            rgb[to + 1] = clip((y + green[chroma]) shr FIXED_BITS)
            rgb[to + 2] = clip((y + blue[chroma]) shr FIXED_BITS)
            to += step
        }
    }

    private fun clip(value: Int): Byte = Math.max(0, Math.min(255, value)).toByte() // Without branches, which the processor would mispredict on noise.
}

/** Returns where in the image, as it lies in memory, the largest centred square of the upright picture is. */
private fun sourceBox(height: Int, width: Int, rotation: Int): Box {
    val turned = rotation % 180 != 0
    val (top, left, side) = if (turned) Box.center(width, height) else Box.center(height, width)
    return when (rotation) {
        0 -> Box(top, left, side)
        90 -> Box(height - left - side, top, side)
        180 -> Box(height - top - side, width - left - side, side)
        else -> Box(left, width - top - side, side)
    }
}
