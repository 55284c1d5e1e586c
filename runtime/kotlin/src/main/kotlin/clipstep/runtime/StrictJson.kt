package clipstep.runtime

import java.nio.charset.CharacterCodingException
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

/** The largest size of a manifest, a signature or a header, in bytes. */
internal const val LARGEST_JSON = 16L shl 20

private const val DEEPEST = 32
private const val SHOWN_CHARACTERS = 60
private val JOINERS = 0x200c..0x200d // The invisible characters that some scripts and emoji need; other ones are refused.
private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
private val INTEGER = Regex("-?[0-9]+")
private val UNPRINTABLE = listOf(Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR)

/**
 * Parses JSON strictly, as Python's `strict_json.py` does, so that all readers get the same values from it.
 *
 * @throws ClipstepException it is not JSON or not UTF-8; it is nested deeper than a manifest ever is; a key occurs twice; a number is
 *   NaN, infinite or an integer of more than 64 bits; a string has control characters.
 */
internal fun parseStrictJson(data: ByteArray): JsonElement = try {
    val text = data.decodeToString(throwOnInvalidSequence = true)
    checkKeys(text)
    Json.parseToJsonElement(text).also { check(it, "") }
} catch (error: CharacterCodingException) {
    throw ClipstepException("is not JSON", got = "bytes that are not UTF-8", cause = error)
} catch (error: SerializationException) {
    throw ClipstepException("is not JSON", got = error.reason(), cause = error)
}

/** Checks the text before it is parsed, because the parser keeps the last of equal keys and overflows its stack on deep nesting. */
private fun checkKeys(text: String) {
    val open = ArrayDeque<MutableSet<String>>()
    var at = 0
    while (at < text.length) {
        when (text[at]) {
            '{', '[' -> open.addLast(mutableSetOf())
            '}', ']' -> open.removeLastOrNull()
            '"' -> {
                val end = endOfString(text, at)
                if (isKey(text, end)) add(text.substring(at, end), open.lastOrNull())
                at = end - 1
            }
        }
        if (open.size > DEEPEST) throw ClipstepException("is nested too deep", expected = "at most $DEEPEST levels")
        at++
    }
}

private fun endOfString(text: String, start: Int): Int {
    var at = start + 1
    while (at < text.length && text[at] != '"') at += if (text[at] == '\\') 2 else 1
    return minOf(at + 1, text.length)
}

private fun isKey(text: String, end: Int): Boolean {
    var at = end
    while (at < text.length && text[at] in " \t\r\n") at++
    return at < text.length && text[at] == ':'
}

private fun add(quoted: String, keys: MutableSet<String>?) {
    val key = (Json.parseToJsonElement(quoted) as JsonPrimitive).content
    if (keys?.add(key) == false) throw ClipstepException("is ambiguous", got = "the key ${shown(key)} twice", expected = "each key once")
}

private fun check(value: JsonElement, where: String): Unit = when (value) {
    is JsonObject -> value.forEach { (key, inner) ->
        checkText(key, where)
        check(inner, "$where.$key")
    }
    is JsonArray -> value.forEachIndexed { index, inner -> check(inner, "$where.$index") }
    is JsonPrimitive -> if (value.isString) checkText(value.content, where) else checkLiteral(value.content, where)
}

/** Checks literals, because the parser accepts any word as one. */
private fun checkLiteral(text: String, where: String) {
    if (text == "true" || text == "false" || text == "null") return
    if (!NUMBER.matches(text)) throw ClipstepException("is not JSON", got = shown(text).trim('"'), expected = "finite numbers, true, false or null")
    if (INTEGER.matches(text)) {
        text.toLongOrNull() ?: throw ClipstepException("has an integer of more than 64 bits at ${where.drop(1)}", got = shown(text).trim('"'))
    } else if (!text.toDouble().isFinite()) {
        throw ClipstepException("has a number out of range at ${where.drop(1)}", expected = "finite numbers")
    }
}

private fun checkText(text: String, where: String) {
    if (text.codePoints().anyMatch { Character.getType(it).toByte() in UNPRINTABLE && it !in JOINERS }) {
        throw ClipstepException("holds control characters at ${where.drop(1).ifEmpty { "its start" }}", got = shown(text), expected = "text of one line")
    }
}

/** Returns a string in quotes, shortened, with non-printable characters escaped. */
private fun shown(text: String): String =
    text.take(SHOWN_CHARACTERS).map { if (it in ' '..'~') it.toString() else "\\u%04x".format(it.code) }.joinToString("", "\"", "\"")

/**
 * Checks that the decoder took every string for a string and every other value for another kind: it would accept a number in quotes. [read]
 * is what [given] became when it was decoded and encoded again.
 *
 * @throws IllegalArgumentException a value has the wrong type.
 */
internal fun checkKinds(given: JsonElement, read: JsonElement?, where: String) {
    when (given) {
        is JsonObject -> given.forEach { (key, inner) -> checkKinds(inner, (read as? JsonObject)?.get(key), "$where.$key") }
        is JsonArray -> given.forEachIndexed { index, inner -> checkKinds(inner, (read as? JsonArray)?.getOrNull(index), "$where.$index") }
        is JsonPrimitive -> if (read is JsonPrimitive) {
            require(given.isString == read.isString) { "${where.drop(1)} must be ${if (read.isString) "a string" else "no string"}" }
        }
    }
}
