package clipstep.runtime

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.encodeToJsonElement
import kotlinx.serialization.json.jsonObject

/** The key of clipstep's metadata in an ONNX file. */
internal const val METADATA = "clipstep"

private const val SHOWN = 8 // If a list is longer than this, a message shows only the first element that differs.

/**
 * Checks that the metadata in an artifact, [text], is what the manifest says, as Python's `embedded_metadata.py` does.
 *
 * @throws ClipstepException it is malformed, or a value differs.
 */
internal fun checkEmbeddedMetadata(said: Interface, text: String, file: String) {
    val (key, got, expected) = firstDifference("", comparable(said), comparable(interfaceIn(text, file))) ?: return
    throw ClipstepException(
        "$file: the manifest's $key is not the artifact's own", got = shown(got), expected = shown(expected),
        fix = "one of them was changed after the export: get the bundle again, or export it again",
    )
}

private fun interfaceIn(text: String, file: String): Interface {
    val values = try {
        parseStrictJson(text.encodeToByteArray())
    } catch (error: ClipstepException) {
        throw malformed(file, error, "export it again")
    }
    val version = checkVersion(values, "$file: what clipstep embedded in it")
    return try {
        decoded<Interface>(values, version).first
    } catch (error: IllegalArgumentException) { // A SerializationException is one, and so is a failed require.
        throw malformed(file, error, malformedFix(version))
    }
}

private fun malformed(file: String, error: Exception, fix: String) =
    ClipstepException("$file: the clipstep metadata in it is malformed", got = error.reason(), fix = fix, cause = error)

/** The values without the version of the format, which may differ. */
private fun comparable(spec: Interface): JsonElement = JsonObject(WHOLE.encodeToJsonElement(spec).jsonObject - "schema_version")

/** The key of the first value that differs, with both values; states are compared by name. */
private fun firstDifference(path: String, said: JsonElement, right: JsonElement): Triple<String, JsonElement, JsonElement>? = when {
    said is JsonObject && right is JsonObject -> (said.keys + right.keys).firstNotNullOfOrNull { key ->
        firstDifference("$path.$key".removePrefix("."), said[key] ?: JsonNull, right[key] ?: JsonNull)
    }
    said is JsonArray && right is JsonArray && said.size == right.size && (said.size > SHOWN || right.firstOrNull() is JsonObject) ->
        said.indices.firstNotNullOfOrNull { firstDifference(path + element(right[it], it), said[it], right[it]) }
    said != right -> Triple(path, said, right)
    else -> null
}

private fun element(value: JsonElement, index: Int): String = if (value is JsonObject) ".${(value["name"] as JsonPrimitive).content}" else "[$index]"

private fun shown(value: JsonElement): String = when (value) {
    JsonNull -> "nothing"
    is JsonPrimitive -> value.content
    else -> value.toString()
}
