package clipstep.runtime

/**
 * An error that the user can put right: one line that says [what] is wrong, what was found, what was expected and what to do, the [fix]. For people
 * who know nothing of bundles, [what] and [fix] alone say it without numbers.
 */
public open class ClipstepException @JvmOverloads constructor(
    public val what: String, got: Any? = null, expected: Any? = null, public val fix: String? = null, cause: Throwable? = null,
) : RuntimeException(listOfNotNull(what, got?.let { "got $it" }, expected?.let { "expected $it" }, fix).joinToString("; "), cause)

/** A bundle is missing, damaged, altered, or of a version that this runtime does not know. */
public class BundleException(what: String, got: Any? = null, expected: Any? = null, fix: String? = null, cause: Throwable? = null) :
    ClipstepException(what, got, expected, fix, cause)

/** An artifact does not compute the golden steps. */
public class ParityException(what: String, got: Any? = null, expected: Any? = null, fix: String? = null) : ClipstepException(what, got, expected, fix)

/** An engine fails in a step. */
public class EngineException(what: String, got: Any? = null, cause: Throwable? = null) : ClipstepException(what, got, cause = cause)

/** Returns the first line of an exception's message, or its type if it has none. */
internal fun Throwable.reason(): String = message?.lineSequence()?.firstOrNull { it.isNotBlank() } ?: javaClass.simpleName
