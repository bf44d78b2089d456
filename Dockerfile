# docker build -t usrn .                          for the CPU
# docker build -t usrn --build-arg TORCH=cu130 .  for CUDA 13 (docker run --gpus all …)
FROM python:3.12-slim
ARG TORCH=cpu
WORKDIR /usrn
COPY requirements.txt requirements.lock ./
RUN grep -E '^torch(vision)?==' requirements.txt >torch.txt \
 && pip install --no-cache-dir -r torch.txt --index-url https://download.pytorch.org/whl/$TORCH \
 && pip install --no-cache-dir -r requirements.txt -c requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps -e .
ENTRYPOINT ["usrn"]
CMD ["--help"]
