pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "clipstep-demo"
include(":app", ":clipstep-runtime")
project(":clipstep-runtime").projectDir = file("../runtime/kotlin")
