@file:JvmName("FormatVersions")

package clipstep.runtime

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.decodeFromJsonElement
import kotlinx.serialization.json.encodeToJsonElement

/** The version of the manifest's format, MAJOR.MINOR, that this runtime knows. docs/versions.md says how others are read. */
public const val SCHEMA_VERSION: String = "2.0"

/** A version, ordered by its numbers: 2.10 is newer than 2.9. */
internal data class FormatVersion(val major: Int, val minor: Int) : Comparable<FormatVersion> {
    override fun compareTo(other: FormatVersion): Int = compareValuesBy(this, other, { it.major }, { it.minor })

    override fun toString(): String = "$major.$minor"
}

internal val OWN: FormatVersion = SCHEMA_VERSION.split('.').let { (major, minor) -> FormatVersion(major.toInt(), minor.toInt()) }

private val VERSION = Regex("(0|[1-9][0-9]{0,5})\\.(0|[1-9][0-9]{0,5})")
private const val LONGEST_QUOTE = 60
private val NEWER = Json { ignoreUnknownKeys = true }

/** Writes every key, including those with default values. */
internal val WHOLE: Json = Json { encodeDefaults = true }

/**
 * Returns the version of a manifest or of the metadata in an artifact, as Python's `format_version.py` does; [what] names it in messages.
 *
 * @throws BundleException it has no version, or another major version.
 */
internal fun checkVersion(values: JsonElement, what: String): FormatVersion {
    val said = (values as? JsonObject)?.get("schema_version")?.takeUnless { it is JsonNull }
    val known = "${OWN.major}.x"
    fun older(got: String) =
        BundleException("$what was written by an older clipstep", got = got, expected = known, fix = "export the network again with this version")
    if (said == null) throw older("no schema_version")
    val isText = said is JsonPrimitive && said.isString
    val text = if (said is JsonPrimitive) said.content else said.toString()
    if (!isText && text == "1") throw older("schema_version 1")
    val (major, minor) = VERSION.takeIf { isText }?.matchEntire(text)?.destructured ?: throw BundleException(
        "$what has a malformed schema_version", got = text.take(LONGEST_QUOTE), expected = "a text such as \"$SCHEMA_VERSION\"", fix = "export it again",
    )
    val version = FormatVersion(major.toInt(), minor.toInt())
    if (version.major < OWN.major) throw older("schema_version $version")
    if (version.major > OWN.major) {
        throw BundleException("$what was written by a newer clipstep", got = "schema_version $version", expected = known, fix = "install a newer clipstep")
    }
    return version
}

/**
 * Decodes [values] of that version. Returns the result, and the keys that were ignored because a newer minor version added them, such
 * as `input.gamma`.
 *
 * @throws IllegalArgumentException they are malformed, or have an unknown key although the version is not newer than this runtime's.
 */
internal inline fun <reified T> decoded(values: JsonElement, version: FormatVersion): Pair<T, List<String>> {
    val read = decoder(version).decodeFromJsonElement<T>(values)
    return read to (if (version > OWN) unread(values, WHOLE.encodeToJsonElement(read), "") else emptyList())
}

/** What the user can do about malformed values of that version. */
internal fun malformedFix(version: FormatVersion): String =
    if (version > OWN) "install a newer clipstep: it is of format $version, and this one knows $OWN" else "export it again"

internal fun decoder(version: FormatVersion): Json = if (version > OWN) NEWER else Json

/** The keys that are in [given] and not in [read], the values decoded from it. */
internal fun unread(given: JsonElement, read: JsonElement, path: String): List<String> = when {
    given is JsonObject && read is JsonObject -> given.flatMap { (key, value) -> read[key]?.let { unread(value, it, "$path$key.") } ?: listOf("$path$key") }
    given is JsonArray && read is JsonArray && given.size == read.size -> given.indices.flatMap { unread(given[it], read[it], "$path$it.") }
    else -> emptyList()
}
