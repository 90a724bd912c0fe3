echo "first line is not the result"
echo "{{ params.count }} for $WHO in {{ task.task_id }}"
