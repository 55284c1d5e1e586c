package clipstep.demo

import android.content.Context
import clipstep.runtime.Engine
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json

/** A library in the app: its Maven name `group:name` and version, and the name of its licence by SPDX. */
@Serializable
internal data class Library(val module: String, val version: String, val licence: String) {
    val name: String get() = module.substringAfter(':')

    /** The licence as the library has it, with its copyright lines. */
    val text: Int get() = TEXTS.getValue(licence)
}

private val TEXTS = mapOf("Apache-2.0" to R.raw.licence_apache, "MIT" to R.raw.licence_onnxruntime, "BSD-3-Clause" to R.raw.licence_executorch)

/** Returns the libraries in the app, this project first, without the engines that this build leaves out. */
internal fun libraries(context: Context): List<Library> {
    val absent = Engine.all.filterNot { it.isPresent }.map { it.dependency }
    return Json.decodeFromString<List<Library>>(context.readRaw(R.raw.libraries)).filterNot { it.module in absent }
}

internal fun Context.readRaw(id: Int): String = resources.openRawResource(id).use { it.readBytes().decodeToString() }

/** The shortest line of a text for 80 columns that goes on in the next one. */
private const val GOES_ON = 60

/** Returns a text that was broken into lines of 80 columns with one line for each of its paragraphs, so that a narrow screen breaks it where it has to. */
internal fun flowing(text: String): String = text.trim().split(Regex("\n\\s*\n")).joinToString("\n\n", transform = ::paragraph)

private fun paragraph(text: String): String {
    val lines = text.lines()
    return lines.indices.joinToString("") { at -> lines[at].trim() + if (at == lines.lastIndex) "" else if (lines[at].trimEnd().length < GOES_ON) "\n" else " " }
}
