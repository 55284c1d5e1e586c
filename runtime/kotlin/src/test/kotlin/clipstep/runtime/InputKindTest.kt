package clipstep.runtime

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** Bundles whose frames are something else than RGB. */
class InputKindTest {
    private val joints = Input(
        kind = "joints", shape = listOf(4, 2, 5, 3), dtype = "float32", layout = "TMVC", color = null, channels = listOf("x", "y", "score"),
        mean = List(3) { 0.0 }, std = List(3) { 1.0 }, fps = 30.0, crop = null, resize = null,
    )

    @Test
    fun `joints are taken by steps, and their golden steps are proven`() {
        val bundle = Bundle.open(Prepared.joints)
        assertEquals("joints (x, y, score)", bundle.manifest.input.content)
        assertEquals(listOf(4, 2, 5, 3), bundle.manifest.input.shape)
        val golden = GoldenSteps.of(bundle)
        assertTrue(golden.hasFloatFrames)
        StepModel.load(bundle).use { model ->
            assertTrue(checkGolden(model, golden).relative <= 1e-4)
            val (logits, states) = model.step(golden.floatSubclip(0), model.initialStates())
            assertTrue(difference(golden.logits(0), logits) <= 1e-5)
            val (second, _) = model.step(golden.floatSubclip(1), states)
            assertTrue(difference(golden.logits(1), second) <= 1e-5)
            assertExplains("frames have the wrong type", "joints (x, y, score)") { model.step(ByteArray(120), model.initialStates()) }
            assertExplains("frames has the wrong size", "4, 2, 5, 3") { model.step(FloatArray(119), model.initialStates()) }
            assertExplains("a stream takes RGB frames", "joints (x, y, score)") { model.stream() }
        }
    }

    @Test
    fun `bytes are for uint8, and floats for float32`() {
        StepModel(colourSpec(), MeanColour(colourSpec()), "colour").use { model ->
            assertExplains("frames have the wrong type", "uint8 (4, 8, 8, 3), RGB frames") { model.step(FloatArray(768), model.initialStates()) }
        }
    }

    @Test
    fun `images of other channels are described by their names`() {
        val depth = joints.copy(kind = "images", layout = "THWC", shape = listOf(4, 8, 8, 1), channels = listOf("depth"), mean = listOf(0.0), std = listOf(1.0))
        assertEquals("float32 (4, 8, 8, 1), images (depth)", depth.toString())
    }

    @Test
    fun `what does not fit the kind is refused`() {
        val wrong = mapOf<String, () -> Input>(
            "kind must be" to { joints.copy(kind = "sound") },
            "layout must be" to { joints.copy(layout = "THWC") },
            "shape must be 4" to { joints.copy(shape = listOf(4, 5, 3)) },
            "color, crop and resize" to { joints.copy(color = "RGB") },
            "channels for other kinds" to { joints.copy(crop = "center_square") },
            "joints are float32" to { joints.copy(dtype = "uint8") },
            "differ from each other" to { joints.copy(channels = listOf("x", "x", "y")) },
            "must have 2 channels for joints" to { joints.copy(channels = listOf("x", "y")) },
        )
        for ((words, make) in wrong) {
            val message = assertThrows(IllegalArgumentException::class.java) { make() }.message.orEmpty()
            assertTrue("$words is not in: $message", words in message)
        }
    }
}
