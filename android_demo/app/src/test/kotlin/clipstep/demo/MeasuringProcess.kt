package clipstep.demo

import kotlinx.serialization.json.Json

/** Prints the [Measurement] of the [Task] that is given as JSON. On a phone [BenchService] has a process of its own; in the tests this is one. */
fun main(arguments: Array<String>) {
    val task = Json.decodeFromString<Task>(arguments.single())
    println(Json.encodeToString(measure(task, processId = 1)))
}
