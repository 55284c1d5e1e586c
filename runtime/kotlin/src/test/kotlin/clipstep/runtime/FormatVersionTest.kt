package clipstep.runtime

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.encodeToJsonElement
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** A reader takes bundles of its own major version, and ignores what a newer minor one has added; the same cases as Python's. */
class FormatVersionTest {
    @get:Rule
    val folder = TemporaryFolder()

    private fun with(vararg changes: Pair<String, JsonElement>): (MutableMap<String, JsonElement>) -> Unit = { it.putAll(changes) }

    private fun JsonElement.plus(key: String, value: JsonElement): JsonElement = JsonObject(jsonObject + (key to value))

    /** A manifest of a newer minor version, with a key more at every depth. */
    private fun newer(values: MutableMap<String, JsonElement>, version: String = "2.1") {
        values["schema_version"] = JsonPrimitive(version)
        values["colour"] = JsonObject(mapOf("deep" to JsonArray(listOf(JsonPrimitive(1)))))
        values["input"] = values.getValue("input").plus("gamma", JsonPrimitive(2.2))
        val artifact = values.getValue("artifacts").jsonArray[0].jsonObject
        val parity = artifact.getValue("parity").plus("median_error", JsonPrimitive(0))
        values["artifacts"] = JsonArray(listOf(artifact.plus("parity", parity)))
        values["provenance"] = values.getValue("provenance").plus("run", JsonPrimitive("x"))
        values["export"] = values.getValue("export").plus("host", JsonNull)
    }

    private fun refused(vararg words: String, change: (MutableMap<String, JsonElement>) -> Unit) {
        folder.root.resolve("copy.clipstep").deleteRecursively()
        val bundle = folder.copied(Prepared.small).also { edit(it, change) }
        assertExplains(*words) { Bundle.open(bundle) }
    }

    @Test
    fun `versions are ordered as numbers`() {
        assertTrue(FormatVersion(2, 10) > FormatVersion(2, 9) && FormatVersion(2, 0) > FormatVersion(1, 99))
        assertEquals(SCHEMA_VERSION, OWN.toString())
    }

    @Test
    fun `an older bundle is refused in a sentence`() {
        val words = "copy.clipstep was written by an older clipstep; got"
        val fix = "expected 2.x; export the network again with this version"
        refused("$words schema_version 1; $fix") { values -> // As before the format had minor versions.
            values["schema_version"] = JsonPrimitive(1)
            val input = values.getValue("input").jsonObject
            values["input"] = JsonObject(input - "std" + ("deviation" to input.getValue("std")))
            values.remove("export")
        }
        refused("$words no schema_version; $fix") { it.remove("schema_version") }
        refused("$words no schema_version; $fix", change = with("schema_version" to JsonNull))
        refused("$words schema_version 1.7; $fix", change = with("schema_version" to JsonPrimitive("1.7")))
    }

    @Test
    fun `a newer major version is refused in a sentence`() {
        for (version in listOf("3.0", "10.2")) {
            refused("copy.clipstep was written by a newer clipstep; got schema_version $version; expected 2.x; install a newer clipstep") {
                newer(it, version)
                it.remove("input")
            }
        }
    }

    @Test
    fun `what is no version is refused`() {
        val texts = listOf("", "2", "2.", "2.0.1", "02.0", "2.x", " 2.0", "２.0", "2." + "9".repeat(400))
        for (version in texts.map(::JsonPrimitive) + listOf(0, 2, 2.0).map(::JsonPrimitive) + JsonPrimitive(true) + JsonArray(emptyList())) {
            refused("copy.clipstep has a malformed schema_version", "expected a text such as \"2.0\"", change = with("schema_version" to version))
        }
    }

    @Test
    fun `a newer minor bundle opens and computes the same`() {
        val bundle = folder.copied(Prepared.small).also { edit(it, ::newer) }
        val opened = Bundle.open(bundle)
        val added = listOf("artifacts.0.parity.median_error", "colour", "export.host", "input.gamma", "provenance.run")
        assertEquals(added, opened.ignored.sorted())
        assertEquals("2.1", opened.manifest.schemaVersion)
        assertEquals(Bundle.open(Prepared.small).manifest.copy(schemaVersion = "2.1"), opened.manifest)
        StepModel.load(bundle).use { model -> checkGolden(model, GoldenSteps.of(opened)) }
    }

    @Test
    fun `nothing is ignored in a bundle of the own version`() {
        assertEquals(emptyList<String>(), Bundle.open(Prepared.small).ignored)
        refused("malformed", "export it again") { newer(it, "2.0") }
    }

    @Test
    fun `a newer minor bundle that is not understood says so`() {
        val fix = "install a newer clipstep: it is of format 2.1, and this one knows 2.0"
        refused("malformed", "fps", fix) {
            newer(it)
            it["input"] = JsonObject(it.getValue("input").jsonObject - "fps")
        }
        refused("malformed", "registry", fix) {
            newer(it)
            it["provenance"] = it.getValue("provenance").plus("kind", JsonPrimitive("registry"))
        }
    }

    @Test
    fun `metadata in an artifact follows the same policy`() {
        val spec = colourSpec()
        val facts = WHOLE.encodeToJsonElement(spec).jsonObject
        fun check(vararg changes: Pair<String, JsonElement>) = checkEmbeddedMetadata(spec, JsonObject(facts + changes).toString(), "x.onnx")
        check()
        val newer = arrayOf("schema_version" to JsonPrimitive("2.3"), "input" to facts.getValue("input").plus("gamma", JsonPrimitive(1)))
        check(*newer)
        assertExplains("x.onnx: the clipstep metadata in it is malformed", "it is of format 2.3, and this one knows 2.0") {
            check(*newer, "output_kind" to JsonPrimitive("embedding"))
        }
        assertExplains("malformed", "gamma", "export it again") { check(newer[1]) }
        val words = "x.onnx: what clipstep embedded in it was written by"
        assertExplains("$words a newer clipstep; got schema_version 3.0") { check("schema_version" to JsonPrimitive("3.0")) }
        assertExplains("$words an older clipstep; got no schema_version") { checkEmbeddedMetadata(spec, "{}", "x.onnx") }
    }
}
