// SPDX-License-Identifier: GPL-3.0-or-later
//
// Flamenco job type: spreads the jobs of a JOBS.json over the farm's workers. Put this file into the folder `scripts` beside
// flamenco-manager, where Flamenco 3 looks for job types. Every worker needs a Blender with AnyRig and sees the jobs file, the rigs,
// the videos and the outputs under the same path, or under one of Flamenco's two-way variables.

const JOB_TYPE = {
    label: "AnyRig Batch",
    settings: [
        {
            key: "jobs_file",
            type: "string",
            subtype: "file_path",
            required: true,
            visible: "submission",
            description: "The JOBS.json, on storage that all workers see",
        },
        {
            key: "jobs",
            type: "string",
            required: true,
            eval: "'1-%d' % len(__import__('json').loads(abspath(settings.jobs_file).read_text(encoding='utf-8-sig'))['jobs'])"
                + " if settings.jobs_file and abspath(settings.jobs_file).is_file() else ''",
            evalInfo: {
                showLinkButton: true,
                description: "All jobs of the file",
            },
            description: "Which jobs to run, by their place in the file. Examples: '2', '1-30', '3, 5-10'",
        },
        {
            key: "chunk_size",
            type: "int32",
            default: 1,
            propargs: { min: 1 },
            visible: "submission",
            description: "Jobs for a worker to run in one go; more of them start Blender less often",
        },
        {
            key: "resume",
            type: "bool",
            default: true,
            visible: "submission",
            description: "Leave out jobs that were done before, so that a task which is tried again goes on where it ended",
        },
        // workers do not know the folder that a path such as //jobs.json starts from
        { key: "jobs_path", type: "string", visible: "web", eval: "str(abspath(settings.jobs_file))", description: "The JOBS.json" },
        // the file that is open when the job is submitted; Flamenco wants one to start Blender with
        { key: "blendfile", type: "string", required: true, visible: "web", description: "The file that Blender starts with" },
    ],
};

function compileJob(job) {
    const settings = job.settings;
    for (const chunk of frameChunker(settings.jobs, settings.chunk_size)) {
        job.addTask(authorBatchTask(settings, chunk));
    }
}

function authorBatchTask(settings, chunk) {
    // what follows --command belongs to it, so it comes last
    const args = ["--command", "anyrig", "batch", settings.jobs_path, "--job", chunk];
    if (settings.resume) {
        args.push("--resume");
    }
    const task = author.Task("jobs-" + chunk, "blender");
    task.addCommand(author.Command("blender-render", {
        exe: "{blender}",
        exeArgs: "{blenderArgs}",
        argsBefore: [],
        blendfile: settings.blendfile,
        args: args,
    }));
    return task;
}
