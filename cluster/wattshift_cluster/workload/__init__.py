"""The Ray bridge: the one process that speaks to Ray, so that the controller need not.

bridge         the process      answers   what it takes, refuses and answers over the wire
engine         the threads that do the slow work with Ray, and tell what came of it
telling        the words of a report       bulletin   its version, and waiting for the next one

Ray itself
    ray_link       a connection to a Ray cluster: nodes, health, drain     ray_token  its token
    nodes          what nodes there are, by the site's names for them
    node_desk      all of a cluster's nodes at once, for the engine
    node_power     the watts of every node     power_keeper  one node's, kept at what was asked
    unasked        what draws watts without asking     meters  who looks, on which node
    local_ray      starting and ending a Ray of our own    ray_host  the process that holds it
    ray_trial      whether Ray can be started here, by doing so
    versions       which releases of Ray are known, and what each of them can do
    purge          taking away what is left when nobody else is

Services: Ray Serve applications
    services service    all of them; one of them     building builds app_watts    how one is built
    serve_link          Ray Serve's own calls        room   where a replica finds watts
    allowances scaling_policy   what Serve's own scaling is allowed; the policy inside Serve
    evictions hand_over         ending a replica without a failed request; a GPU's memory
    service_stats stats_desk serve_metrics   how they do, and who is asked for it

Batch jobs
    batch batch_job batch_wishes   all of them; one of them; what is wanted, on disk
    batch_crew batch_worker        a job's workers; the actor that works
    chunk_loop claims chunks       chunk after chunk; who is at which; what is done, as files
    datasets formats rows          items in, items and dead letters out
    callables commands trial       the user's work, and what to do with an item that fails
    progress job_log samples       rates; what was printed; callables for a first job

specs          what a command may ask for, of either     fault_words  a user's error, in his words

Only the modules that drive Ray import it, and only inside functions.
"""
