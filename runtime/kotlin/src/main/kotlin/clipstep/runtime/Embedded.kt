package clipstep.runtime

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.encodeToJsonElement
import kotlinx.serialization.json.jsonObject

/** The key of the facts in an ONNX file's metadata. */
internal const val METADATA = "clipstep"

private const val SHOWN = 8 // Lists of more are told by their first element that differs.

/**
 * Makes sure that the facts in an artifact, the [text] that it carries, are those that the manifest says for it; the same as Python's
 * `embedded.py`.
 *
 * @throws ClipstepException they are malformed, or one differs.
 */
internal fun checkEmbeddedFacts(said: Interface, text: String, file: String) {
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
    ClipstepException("$file: the clipstep facts in it are malformed", got = error.reason(), fix = fix, cause = error)

/** The facts without their version of the format, which may differ. */
private fun comparable(facts: Interface): JsonElement = JsonObject(WHOLE.encodeToJsonElement(facts).jsonObject - "schema_version")

/** The key of the first fact that differs, of states by their names, with what each says. */
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
