package clipstep.runtime

import ai.onnxruntime.OrtEnvironment
import java.io.File
import java.nio.ByteBuffer

/**
 * Times on this computer, for tests/android/latency.py: `Latency.kt BUNDLE THREADS` says its onnxruntime's version, then reads
 * lines from standard input and answers each with milliseconds: a number of steps, or `yuv` for a conversion of 640x480 pixels.
 */
fun main(arguments: Array<String>) {
    val bundle = Bundle.open(File(arguments[0]))
    val golden = GoldenSteps.of(bundle)
    val subclips = List(4) { frames(golden.subclip(it), bundle.manifest.input.shape) }
    println(OrtEnvironment.getEnvironment().version)
    StepModel.load(bundle, threads = arguments[1].toInt()).use { model ->
        model.stream().use { stream ->
            for (line in generateSequence(::readlnOrNull)) {
                println((if (line == "yuv") convertTimes() else List(line.toInt()) { time(stream, subclips[it % subclips.size]) }).joinToString(" "))
            }
        }
    }
}

/** The push that a step follows, of a frame of the model's size. */
private fun time(stream: Stream, subclip: List<Frame>): Double {
    for (frame in subclip.dropLast(1)) stream.push(frame)
    val begin = System.nanoTime()
    checkNotNull(stream.push(subclip.last()))
    return (System.nanoTime() - begin) / 1e6
}

private fun frames(subclip: ByteArray, shape: List<Int>): List<Frame> {
    val size = shape[1] * shape[2] * shape[3]
    return List(shape[0]) { Frame(shape[1], shape[2], subclip.copyOfRange(it * size, (it + 1) * size)) }
}

/** As a camera gives them: chroma two bytes apart, turned by a quarter. */
private fun convertTimes(): List<Double> {
    val (height, width) = 480 to 640
    val random = java.util.Random(0)
    fun plane(rows: Int, stride: Int, pixel: Int) =
        Plane(ByteBuffer.allocateDirect(rows * stride).also { buffer -> buffer.put(ByteArray(rows * stride).also(random::nextBytes)).rewind() }, stride, pixel)
    val image = YuvImage(height, width, plane(height, width, 1), plane(height / 2, width, 2), plane(height / 2, width, 2), YuvColor.BT601_FULL)
    val converter = YuvConverter()
    fun time() = System.nanoTime().let { begin -> converter.convert(image, 90); (System.nanoTime() - begin) / 1e6 }
    repeat(500) { time() }
    return List(300) { time() }
}
