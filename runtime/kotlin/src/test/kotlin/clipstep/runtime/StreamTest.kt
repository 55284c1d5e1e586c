package clipstep.runtime

import kotlin.math.abs
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.double
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

class StreamTest {
    private val red = plain(255, 0, 0)
    private val blue = plain(0, 0, 255)

    private fun stream(spec: Interface = colourSpec(), smoothing: Float = 0f) = StepModel(spec, MeanColour(spec), "colour").stream(smoothing)

    @Test
    fun `a prediction comes once every T frames, from states that go on`() {
        val stream = stream()
        val predictions = (1..8).map { stream.push(red) }
        assertEquals(listOf(4, 8), predictions.indices.filter { predictions[it] != null }.map { it + 1 })
        assertArrayEquals(floatArrayOf(3.75f, -0.25f, -0.25f), predictions[3]!!.logits, 1e-6f)
        assertArrayEquals(floatArrayOf(4 - 1.125f, -0.125f, -0.125f), predictions[7]!!.logits, 1e-6f)
        assertEquals(listOf(0 to 4L, 1 to 8L), predictions.filterNotNull().map { it.step to it.framesSeen })
    }

    @Test
    fun `reset and flush forget the states and the frames that wait`() {
        val stream = stream()
        val first = (1..4).mapNotNull { stream.push(red) }.single()
        for (forget in listOf<() -> Any?>(stream::reset, stream::flush)) {
            repeat(3) { stream.push(blue) }
            forget()
            val again = (1..4).mapNotNull { stream.push(red) }.single()
            assertArrayEquals(first.logits, again.logits, 0f)
            assertEquals(0, again.step)
        }
    }

    @Test
    fun `every second frame is used with a stride of two`() {
        val stream = stream(colourSpec(stride = 2))
        val predictions = (0 until 7).map { stream.push(if (it % 2 == 0) red else blue) }
        assertArrayEquals(floatArrayOf(3.75f, -0.25f, -0.25f), predictions.last()!!.logits, 1e-6f)
        assertTrue(predictions.dropLast(1).all { it == null })
    }

    @Test
    fun `predictions are withheld while the delay lasts`() {
        val stream = stream(colourSpec(delay = 4))
        val predictions = (1..12).map { stream.push(red) }
        assertEquals(listOf(8, 12), predictions.indices.filter { predictions[it] != null }.map { it + 1 })
        assertEquals(1, predictions[7]!!.step)
    }

    @Test
    fun `a step that fails loses the last frame only`() {
        val spec = colourSpec()
        val engine = MeanColour(spec)
        val stream = StepModel(spec, engine, "colour").stream()
        repeat(3) { stream.push(red) }
        engine.fail = true
        assertExplains("the engine failed") { stream.push(blue) }
        engine.fail = false
        val prediction = stream.push(red)!!
        assertArrayEquals(floatArrayOf(3.75f, -0.25f, -0.25f), prediction.logits, 1e-6f)
        assertEquals(4L, prediction.framesSeen)
    }

    @Test
    fun `logits that are not finite are no prediction, and a new video begins`() {
        val spec = colourSpec()
        val engine = MeanColour(spec)
        val stream = StepModel(spec, engine, "colour").stream()
        for (off in listOf(Float.NaN, Float.POSITIVE_INFINITY)) {
            engine.off = 0f
            stream.reset()
            repeat(7) { stream.push(blue) }
            engine.off = off
            assertExplains("step 1: colour: gave logits that are not finite", "$off") { stream.push(blue) }
            engine.off = 0f
            assertArrayEquals(floatArrayOf(3.75f, -0.25f, -0.25f), (1..4).mapNotNull { stream.push(red) }.single().logits, 1e-6f)
        }
    }

    @Test
    fun `a flushed stream gives the clip network on the whole video`() {
        val frames = Prepared.python.getValue("delayed.frames")
        val (count, height, width) = frames.shape
        assertEquals(24, count)
        StepModel.load(Prepared.delayed).use { model ->
            model.stream().use { stream ->
                for (length in listOf(2, 3, 5, 12, 24)) {
                    val expected = Prepared.python.getValue("delayed.logits.$length").floats(0)
                    val pushed = (0 until length).map { stream.push(Frame(height, width, frames.bytes(it))) }
                    assertTrue(pushed.take(model.spec.delayFrames + 1).all { it == null })
                    val whole = stream.flush()!!
                    assertTrue(difference(whole.logits, expected) < 1e-4)
                    assertEquals(length / 2 - 1 to length.toLong(), whole.step to whole.framesSeen)
                }
                assertNull(stream.flush()) // No frame was seen.
            }
        }
    }

    @Test
    fun `two threads at once are an error, and the stream stays right`() {
        val spec = colourSpec()
        val engine = MeanColour(spec)
        val stream = StepModel(spec, engine, "colour").stream()
        repeat(3) { stream.push(red) }
        engine.inStep = {
            for (use in listOf({ stream.push(blue) }, { stream.flush() }, { stream.reset() })) {
                assertExplains("the stream is in use by another thread", "model.stream()") { use() }
            }
        }
        val first = stream.push(red)!!
        engine.inStep = {}
        assertArrayEquals(floatArrayOf(3.75f, -0.25f, -0.25f), first.logits, 1e-6f)
        assertArrayEquals(floatArrayOf(4 - 1.125f, -0.125f, -0.125f), (1..4).mapNotNull { stream.push(red) }.single().logits, 1e-6f)
    }

    @Test
    fun `the likeliest comes first, and equals keep their order`() {
        val prediction = Prediction(0, 4, floatArrayOf(0f, 1f, 0f), probabilities(floatArrayOf(0f, 1f, 0f), "logits"), listOf("a", "b", "c"))
        assertEquals(listOf("b", "a"), prediction.top(2).map { it.label })
        assertEquals(0.5761169f, prediction.top(1).single().probability, 1e-6f) // e / (e + 2)
    }

    @Test
    fun `probabilities by hand, whatever the first output holds`() {
        val sure = floatArrayOf(0f, 1f, 0f)
        assertArrayEquals(floatArrayOf(0.2119416f, 0.5761169f, 0.2119416f), probabilities(sure, "logits"), 1e-6f)
        assertArrayEquals(floatArrayOf(0.5f, 0.7310586f, 0.5f), probabilities(sure, "multilabel_logits"), 1e-6f)
        for (inside in listOf("probabilities", "multilabel_probabilities")) assertArrayEquals(sure, probabilities(sure, inside), 0f)
        assertArrayEquals(floatArrayOf(0f, 1f), probabilities(floatArrayOf(-1000f, 1000f), "multilabel_logits"), 0f)
    }

    @Test
    fun `a stream follows what the manifest says of the output, and a prediction's arrays are its own`() {
        val spec = colourSpec().copy(outputKind = "probabilities")
        val stream = StepModel(spec, MeanColour(spec), "colour").stream(smoothing = 0.5f)
        val (first, second) = List(2) { (1..4).mapNotNull { stream.push(red) }.single().also { it.probabilities.fill(9f) } }
        assertArrayEquals(floatArrayOf(3.75f, -0.25f, -0.25f), first.logits, 1e-6f)
        assertArrayEquals(FloatArray(3) { 9f }, second.probabilities, 0f)
        val third = (1..4).mapNotNull { stream.push(red) }.single()
        assertTrue("what was written into a prediction came back", third.probabilities.all { it < 4f })
    }

    @Test
    fun `smoothing keeps its share of the probabilities before`() {
        val plain = stream().run { listOf(red, blue).map { frame -> (1..4).mapNotNull { push(frame) }.single().probabilities } }
        val smooth = stream(smoothing = 0.75f).run { listOf(red, blue).map { frame -> (1..4).mapNotNull { push(frame) }.single().probabilities } }
        assertArrayEquals(plain[0], smooth[0], 0f)
        assertArrayEquals(FloatArray(3) { 0.75f * plain[0][it] + 0.25f * plain[1][it] }, smooth[1], 1e-6f)
        assertExplains("smoothing is out of range; got 1.0; expected 0 to below 1") { stream(smoothing = 1f) }
    }

    @Test
    fun `timestamps by the vectors that Python's tests take`() {
        val vectors = Json.parseToJsonElement(javaClass.getResource("/resampler.json")!!.readText()).jsonArray.map { it.jsonObject }
        assertTrue(vectors.size > 8)
        for (vector in vectors) {
            fun numbers(name: String) = vector.getValue(name).jsonArray.map { it.jsonPrimitive.long }
            val resampler = Resampler(vector.getValue("fps").jsonPrimitive.double, vector.getValue("longest").jsonPrimitive.long)
            val restarts = mutableListOf<Long>()
            val copies = numbers("milliseconds").mapIndexed { index, time ->
                resampler.copies(time * 1_000_000).also { if (resampler.restarted) restarts.add(index.toLong()) }
            }
            assertEquals("$vector", numbers("copies") to numbers("restarts"), copies to restarts)
        }
    }

    @Test
    fun `of a rate that is nearly the same one frame of a thousand is left out`() {
        val resampler = Resampler(29.97, 16)
        assertEquals(1000, (0L..1000).sumOf { resampler.copies(it * 1_000_000_000 / 30) })
    }

    @Test
    fun `timestamps place frames in the stream`() {
        val stream = stream() // 10 frames a second: the camera gives 5.
        val times = listOf(0L, 200, 400)
        val predictions = times.map { stream.push(red, it * 1_000_000) }
        assertNull(predictions[1])
        assertEquals(4, predictions[2]!!.framesSeen)
        assertNull(stream.push(red, 400_000_000)) // The same time again: left out.
        assertEquals(0, stream.restarts)
        assertNull(stream.push(red, 2_000_000_000)) // A pause of more than a subclip: a new video, of which this is the first frame.
        assertEquals(1, stream.restarts)
        assertEquals(listOf(null, 0), (1..2).map { stream.push(red, 2_000_000_000L + it * 200_000_000)?.step })
    }

    @Test
    fun `frames that the rate or the stride drops are not converted, and repeated ones once`() {
        fun converted(stream: Stream, vararg milliseconds: Long) = mutableListOf<Long>().also { asked ->
            for (time in milliseconds) stream.push(time * 1_000_000) { red.also { asked += time } }
        }
        assertEquals(listOf(0L, 100, 200), converted(stream(), 0, 30, 100, 130, 200)) // 10 frames a second are used.
        assertEquals(listOf(0L, 300), converted(stream(), 0, 300))
        assertEquals(listOf(0L, 200), converted(stream(colourSpec(stride = 2)), 0, 100, 200, 300))
    }

    @Test
    fun `a frame that is converted when it is asked for counts as one that was`() {
        val times = listOf(0L, 200, 230, 400, 2_000, 2_200, 2_400).map { it * 1_000_000 }
        val (lazy, eager) = stream() to stream()
        val pairs = times.mapIndexed { index, time -> (if (index % 2 == 0) red else blue).let { lazy.push(time) { it } to eager.push(it, time) } }
        assertEquals(2, pairs.count { it.second != null })
        for ((got, expected) in pairs) assertEquals(expected?.run { step to logits.toList() }, got?.run { step to logits.toList() })
        assertEquals(1 to 1, lazy.restarts to eager.restarts)
    }

    @Test
    fun `what a stream cannot take is explained`() {
        assertExplains("a stream takes RGB frames", "optical flow") { stream(colourSpec(color = "flow")) }
        assertExplains("a frame has the wrong size; got 10 bytes for 8 x 8") { Frame(8, 8, ByteArray(10)) }
        val stream = stream().apply { close(); close() }
        assertExplains("the stream is closed") { stream.push(red) }
    }

    @Test
    fun `a real video gives Python's predictions, from the camera's format on`() {
        val (height, width) = Prepared.shape("0.ffmpeg")
        val logits = Prepared.python.getValue("stream.logits")
        val predictions = StepModel.load(Prepared.bundle).use { model ->
            model.stream().use { stream ->
                val converter = YuvConverter()
                (0 until Prepared.shape("stream.planes")[0]).mapNotNull { stream.push(converter.convert(planar(height, width, it), 0)) }
            }
        }
        assertEquals(logits.shape[0], predictions.size)
        val largest = predictions.maxOf { difference(it.logits, logits.floats(it.step)) / maxOf(1f, logits.floats(it.step).maxOf(::abs)) }
        println("largest relative difference of a logit from Python's on a real video: $largest")
        assertTrue("$largest", largest < 0.01) // Single numbers of single pixels were rounded the other way.
    }
}

/** A frame of the real video, as Python decoded it. */
internal fun planar(height: Int, width: Int, index: Int): YuvImage = planar(height, width, Prepared.python.getValue("stream.planes").bytes(index))

internal fun planar(height: Int, width: Int, planes: ByteArray, color: YuvColor = YuvColor.BT601): YuvImage {
    fun plane(start: Int, length: Int, stride: Int) = Plane(java.nio.ByteBuffer.wrap(planes, start, length).slice(), stride, 1)
    val (luma, chroma) = height * width to height * width / 4
    return YuvImage(height, width, plane(0, luma, width), plane(luma, chroma, width / 2), plane(luma + chroma, chroma, width / 2), color)
}
