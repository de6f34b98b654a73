// A batch in Nextflow: nextflow run main.nf --bundle BUNDLE --scans SCANS --out RESULTS --shards 16
// Paths are those of a file system that all nodes share.
params.shards = 16
params.options = ''

process SEGMENT {
    cpus 8
    memory 16.GB
    // A task whose scans failed fails again, and the report names them.
    errorStrategy { task.attempt < 3 ? 'retry' : 'ignore' }
    maxRetries 2

    input:
    val shard

    output:
    val true

    script:
    """
    medseg segment '${params.bundle}' '${params.scans}' '${params.out}' \\
        --shard ${shard}/${params.shards} --threads ${task.cpus} --quiet ${params.options}
    """
}

process REPORT {
    input:
    val done

    script:
    """
    medseg report '${params.out}'
    """
}

workflow {
    SEGMENT(Channel.of(1..params.shards))
    REPORT(SEGMENT.out.collect())
}
