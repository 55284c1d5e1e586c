package clipstep.runtime

import java.io.File
import java.nio.file.Files
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class BundleTest {
    @get:Rule
    val folder = TemporaryFolder()

    @Test
    fun `it reads what an artifact needs, and takes bundles that do not say`() {
        val needs = Bundle.open(Prepared.bundle).artifact("onnx").requires
        assertEquals(Requires(opset = 20, irVersion = 9, onnxruntime = ">=1.17"), needs)
        val bundle = folder.copied()
        edit(bundle) { values ->
            val artifacts = values.getValue("artifacts").jsonArray.map { JsonObject(it.jsonObject - "requires") }
            values["artifacts"] = JsonArray(artifacts)
        }
        assertEquals(null, Bundle.open(bundle).artifact("onnx").requires)
    }

    @Test
    fun `a bundle says what was exported`() {
        val manifest = Bundle.open(Prepared.bundle).manifest
        assertEquals(listOf(16, 112, 112, 3), manifest.input.shape)
        assertEquals(listOf("slow_buffer", "fast_buffer"), manifest.states.map { it.name })
        assertEquals(listOf("Fight", "NoFight"), manifest.labels)
    }

    @Test
    fun `it reads what an artifact reaches on labelled videos, and what it loses against float32`() {
        val against = """
            {"file": "step.pte", "engine": "executorch", "top1": 0.75, "top1_change": -0.25, "top1_change_interval": [-0.7, 0.3], "gained_videos": 0,
            "lost_videos": 1, "steps": 9, "agreeing_steps": 8, "agreement_interval": [0.5, 0.9], "drift_steps": 1000,
            "drift": [{"output": "logits", "first_tenth": 0.001, "last_tenth": 0.002}]}"""
        fun noted(comparison: String): File = folder.newFolder().let { empty -> Prepared.bundle.copyRecursively(empty, overwrite = true); empty }.also { bundle ->
            val accuracy = """{"dataset": "d", "engine": "executorch", "videos": 4, "crops": 1, "top1": 0.5, "top5": null, "skipped_videos": 2, "processor": "arm64",
                "against_float32": $comparison}"""
            edit(bundle) { values ->
                val artifact = values.getValue("artifacts").jsonArray.first().jsonObject
                values["artifacts"] = JsonArray(listOf(JsonObject(artifact + ("accuracy" to Json.parseToJsonElement(accuracy)))))
            }
        }
        val accuracy = Bundle.open(noted(against)).manifest.artifacts.single().accuracy!!
        assertEquals(listOf(0.5, 2, "arm64"), listOf(accuracy.top1, accuracy.skippedVideos, accuracy.processor))
        assertEquals(listOf(-0.7, 0.3), accuracy.againstFloat32!!.top1ChangeInterval)
        assertEquals(listOf(Drift("logits", 0.001, 0.002)), accuracy.againstFloat32.drift)
        assertExplains("mood") { Bundle.open(noted(against.replaceFirst("{", "{\"mood\": 1, "))) }
        assertExplains("an interval must be two numbers") { Bundle.open(noted(against.replace("[0.5, 0.9]", "[0.5]"))) }
    }

    @Test
    fun `it reads what was tried for a platform, and refuses a choice of what is not there`() {
        val choice = """
            {"target": "onnx", "platform": "any", "precision": "float32", "unit": "M ARM64 instructions", "measured_on": "x86_64",
            "budget": {"size_bytes": 3000000, "instructions": 140000000}, "max_accuracy_drop": 1, "tried": [{"precision": "float32", "variant": "gemm",
            "verdict": "chosen: nothing else is left", "variants": [{"variant": "gemm", "cost": 137.9, "size_bytes": 2430000}, {"variant": "per-frame", "cost": 99, "size_bytes": 2400000, "fault": "off"}]}]}"""
        fun noted(choices: String): File = folder.newFolder().also { bundle ->
            Prepared.bundle.copyRecursively(bundle, overwrite = true)
            edit(bundle) { values -> values["choices"] = Json.parseToJsonElement("[$choices]") }
        }
        val read = Bundle.open(noted(choice)).manifest.choices.single()
        assertEquals(Budget(sizeBytes = 3_000_000, instructions = 140_000_000), read.budget)
        assertEquals(listOf(MeasuredVariant("gemm", 137.9, 2_430_000), MeasuredVariant("per-frame", 99.0, 2_400_000, fault = "off")), read.tried.single().variants)
        assertExplains("there is no artifact for onnx, arm64, float32, which was chosen") { Bundle.open(noted(choice.replace("any", "arm64"))) }
        assertExplains("each precision must be tried once, and int8 among them") {
            Bundle.open(noted(choice.replaceFirst("\"float32\"", "\"int8\"")))
        }
        assertExplains("the variant must be one of variants, not direct") { Bundle.open(noted(choice.replaceFirst("\"gemm\"", "\"direct\""))) }
        assertExplains("there are two choices for onnx, any") { Bundle.open(noted("$choice, $choice")) }
    }

    @Test
    fun `a flipped bit is found`() {
        val bundle = folder.copied()
        File(bundle, "step.onnx").let { file -> file.writeBytes(file.readBytes().also { it[1000] = (it[1000].toInt() xor 1).toByte() }) }
        assertExplains("step.onnx was altered", "got", "expected", "export it again") { Bundle.open(bundle) }
    }

    @Test
    fun `what is missing is named`() {
        val bundle = folder.copied()
        File(bundle, "golden.safetensors").delete()
        val opened = Bundle.open(bundle)
        assertEquals(listOf("golden.safetensors"), opened.missing)
        StepModel.load(bundle).close() // It does not need them.
        assertExplains("golden.safetensors is missing", "copy the bundle again") { GoldenSteps.of(opened) }
        File(bundle, "step.onnx").delete()
        assertExplains("step.onnx is missing", "copy the bundle again") { StepModel.load(bundle) }
        assertExplains("is not a bundle", "no manifest.json") { Bundle.open(folder.newFolder()) }
    }

    @Test
    fun `files outside the folder are refused, by name and by link`() {
        val bundle = folder.copied()
        edit(bundle) { it["golden"] = JsonObject(it.getValue("golden").jsonObject + ("file" to JsonPrimitive("../golden.safetensors"))) }
        assertExplains("malformed", "inside the bundle", "../golden.safetensors") { Bundle.open(bundle) }
        bundle.deleteRecursively()
        val outside = File(folder.root, "outside").also { File(folder.copied(), "step.onnx").renameTo(it) }
        Files.createSymbolicLink(File(bundle, "step.onnx").toPath(), outside.toPath())
        assertExplains("step.onnx lies outside the bundle") { Bundle.open(bundle) }
    }

    @Test
    fun `an unknown key, value or version is refused`() {
        val bundle = folder.copied()
        edit(bundle) { it["colour"] = JsonPrimitive("red") }
        assertExplains("malformed", "colour") { Bundle.open(bundle) }
        edit(bundle) { it.remove("colour"); it["input"] = JsonObject(it.getValue("input").jsonObject + ("dtype" to JsonPrimitive("int8"))) }
        assertExplains("malformed", "dtype must be uint8 or float32, not int8") { Bundle.open(bundle) }
        File(bundle, MANIFEST).writeText("{")
        assertExplains("is not JSON") { Bundle.open(bundle) }
    }

    @Test
    fun `the artifact of this processor is chosen before the one for any`() {
        val bundle = folder.copied()
        assertEquals("any", Bundle.open(bundle).artifact("onnx").platform)
        edit(bundle) { values ->
            val artifact = values.getValue("artifacts").jsonArray.single().jsonObject
            values["artifacts"] = JsonArray(listOf("arm64", "x86_64", "any").map { JsonObject(artifact + ("platform" to JsonPrimitive(it))) })
        }
        assertEquals(platform(), Bundle.open(bundle).artifact("onnx").platform)
        assertExplains("no float32 executorch artifact", "onnx for any, onnx for arm64", "choose another engine") { Bundle.open(bundle).artifact("executorch") }
        assertEquals(listOf("x86_64", "arm64", "any"), listOf("amd64", "aarch64", "armv8l").map(::platform))
    }

    @Test
    fun `float16 is chosen by those who ask for it, on processors that compute in it`() {
        val bundle = folder.copied()
        edit(bundle) { values ->
            val artifact = values.getValue("artifacts").jsonArray.single().jsonObject
            val requires = JsonObject(artifact.getValue("requires").jsonObject + ("float16_processor" to JsonPrimitive(true)))
            val half = JsonObject(artifact + ("precision" to JsonPrimitive("float16")) + ("requires" to requires))
            values["artifacts"] = JsonArray(listOf(half, artifact))
        }
        Bundle.open(bundle).use { opened ->
            assertEquals("float32", opened.artifact("onnx").precision)
            assertEquals("float16, ", runnable(opened, "onnx", "float16", true).second)
            val (artifact, said) = runnable(opened, "onnx", "float16", false)
            assertEquals("float32" to "float32 in place of float16, which this processor does not compute in, ", artifact.precision to said)
            assertExplains("unknown precision; got int4; expected one of float32, float16") { opened.artifact("onnx", "int4") }
            assertExplains("no float16 executorch artifact", "got float16 onnx for any, onnx for any") { opened.artifact("executorch", "float16") }
        }
        StepModel.load(bundle).use { assertEquals("float32" to false, it.precision to ("float16" in it.description)) }
        edit(bundle) { values -> values["artifacts"] = JsonArray(values.getValue("artifacts").jsonArray.take(1)) }
        assertExplains("has no float32 onnx artifact", "got float16 onnx for any", "another engine or precision") { StepModel.load(bundle) }
    }

    @Test
    fun `the precision that was chosen for this processor is taken, unless another is asked for`() {
        val bundle = folder.copied()
        fun taken(precision: String? = null) = StepModel.load(bundle, precision = precision).use { it.precision to it.description }
        fun choice(platform: String, precision: String) = """
            {"target": "onnx", "platform": "$platform", "precision": "$precision", "unit": "ms", "measured_on": "$platform", "tried": [{"precision": "$precision",
            "variant": "gemm", "verdict": "chosen: the cheapest", "variants": [{"variant": "gemm", "cost": 9.5, "size_bytes": 2430000}]}]}"""
        val (here, other) = if (platform() == "arm64") "arm64" to "x86_64" else "x86_64" to "arm64"
        edit(bundle) { values ->
            val artifact = values.getValue("artifacts").jsonArray.single().jsonObject
            fun of(platform: String, precision: String) = JsonObject(artifact + ("platform" to JsonPrimitive(platform)) + ("precision" to JsonPrimitive(precision)))
            values["artifacts"] = JsonArray(listOf(artifact, of(here, "int8"), of(other, "float16")))
            values["choices"] = Json.parseToJsonElement("[${choice(other, "float16")}]")
        }
        val float32 = "float32" to "step.onnx (lowered, for any) in onnxruntime, 1 thread"
        assertEquals(float32, taken()) // Nothing was chosen for this processor.
        edit(bundle) { values -> values["choices"] = Json.parseToJsonElement("[${choice(other, "float16")}, ${choice(here, "int8")}]") }
        assertEquals("int8" to "step.onnx (lowered, int8, for $here) in onnxruntime, 1 thread", taken())
        assertEquals(float32, taken("float32"))
        Bundle.open(bundle).use { opened ->
            assertEquals(listOf("int8", "float32"), listOf("onnx", "executorch").map(opened::chosenPrecision))
            assertEquals("int8", StepModel.load(opened).use { it.precision })
        }
    }

    @Test
    fun `a processor computes in float16 if each of its cores does`() {
        val cpuinfo = folder.newFile()
        cpuinfo.writeText("processor : 0\nFeatures : fp asimd fphp asimdhp\n\nprocessor : 1\nFeatures : fp asimd asimdhp\n")
        assertTrue(computesFloat16("arm64", "Linux", cpuinfo))
        assertEquals(listOf(false, false, true), listOf("x86_64" to "Linux", "arm64" to "Windows", "arm64" to "Mac OS X").map { (machine, system) -> computesFloat16(machine, system, cpuinfo) })
        cpuinfo.appendText("processor : 2\nFeatures : fp asimd\n")
        assertEquals(false, computesFloat16("arm64", "Linux", cpuinfo))
        cpuinfo.writeText("flags\t\t: fpu avx avx2 f16c\n")
        assertTrue(computesFloat16("x86_64", "Linux", cpuinfo))
    }

    @Test
    fun `a folder's hash is that of its files`() {
        val tree = folder.newFolder("tree")
        File(tree, "b/c").apply { parentFile?.mkdirs() }.writeText("2")
        File(tree, "a").writeText("1")
        val lines = "${treeSha256(File(tree, "a"))}  a\n${treeSha256(File(tree, "b/c"))}  b/c\n"
        assertEquals(treeSha256(folder.newFile().apply { writeText(lines) }), treeSha256(tree))
        assertEquals(2, treeSize(tree))
    }

    @Test
    fun `the manifest's keys are those of the Python runtime's JSON Schema`() {
        val schema = Json.parseToJsonElement(File("../python/bundle/manifest.schema.json").readText()).jsonObject
        val kotlin = mapOf(
            "Manifest" to Manifest.serializer(), "Input" to Input.serializer(), "State" to State.serializer(), "Artifact" to Artifact.serializer(),
            "Placement" to Placement.serializer(), "Parity" to Parity.serializer(), "Accuracy" to Accuracy.serializer(),
            "AgainstFloat32" to AgainstFloat32.serializer(), "Drift" to Drift.serializer(),
            "Arm64Step" to Arm64Step.serializer(), "Tuning" to Tuning.serializer(), "Requires" to Requires.serializer(),
            "Golden" to Golden.serializer(), "Export" to Export.serializer(), "Flush" to Flush.serializer(),
            "KeptOutput" to KeptOutput.serializer(), "NotDelegated" to NotDelegated.serializer(), "SensitiveLayer" to SensitiveLayer.serializer(), "Budget" to Budget.serializer(),
            "CompressedWeights" to CompressedWeights.serializer(), "Choice" to Choice.serializer(), "TriedPrecision" to TriedPrecision.serializer(), "MeasuredVariant" to MeasuredVariant.serializer(),
        ).mapValues { (_, serializer) -> keys(serializer.descriptor) }
        val provenances = mapOf(
            "RunProvenance" to RunProvenance.serializer(), "FactoryProvenance" to FactoryProvenance.serializer(),
            "ModuleProvenance" to ModuleProvenance.serializer(),
        ).mapValues { (_, serializer) -> keys(serializer.descriptor) + ("kind" to true) } // The discriminator, which is no property.
        val python = schema.getValue("\$defs").jsonObject.mapValues { keys(it.value.jsonObject) } + ("Manifest" to keys(schema))
        assertEquals(python, kotlin + provenances)
    }

    private fun keys(definition: JsonObject): Map<String, Boolean> {
        val required = definition["required"]?.jsonArray.orEmpty().map { it.jsonPrimitive.content }
        return definition.getValue("properties").jsonObject.mapValues { it.key in required }
    }

    private fun keys(descriptor: kotlinx.serialization.descriptors.SerialDescriptor): Map<String, Boolean> =
        (0 until descriptor.elementsCount).associate { descriptor.getElementName(it) to !descriptor.isElementOptional(it) }
}
