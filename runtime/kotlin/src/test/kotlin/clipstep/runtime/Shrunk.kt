package clipstep.runtime

import java.io.File

/** What an app does with a bundle. `tests/android/apk.py` shrinks this with R8, as a release build is shrunk, and runs it. */
fun main(arguments: Array<String>) {
    val path = File(arguments.single())
    val (errors, precision) = StepModel.load(path).use { checkGolden(it, GoldenSteps.of(Bundle.open(path))) to it.precision }
    println("${errors.steps} golden steps in $precision, largest error ${errors.relative}; engines: ${Engine.all.filter { it.isPresent }}")
}
